"use strict";
// Brings the report's buttons to life. The page is whole without it, and it asks nothing of anyone.
// What a reader has chosen is kept here and not in the page, whose parts may be replaced
// ("report:replaced") while a suite is running.
(() => {
  const hidden = new Set(); // "figure/line": switched off
  const picked = new Set(); // "figure/line": highlighted until pressed again
  const opened = new Set(); // figures whose table is open
  const sorted = new Map(); // table -> [column, direction]

  const all = (root, selector) => [...root.querySelectorAll(selector)];
  const figureOf = (element) => element.closest("figure[data-figure]");
  const key = (figure, name) => `${figure.dataset.figure}/${name}`;
  const flip = (set, value) => set.delete(value) || set.add(value);

  function showLines(figure) {
    for (const button of all(figure, "[data-toggle]")) {
      button.setAttribute("aria-pressed", String(!hidden.has(key(figure, button.dataset.toggle))));
    }
    for (const part of all(figure, "[data-series]")) {
      part.classList.toggle("off", hidden.has(key(figure, part.dataset.series)));
    }
  }

  function showPicked(figure, hovered = null) {
    const isPicked = (part) =>
      part.dataset.line === hovered || picked.has(key(figure, part.dataset.line));
    const said = [];
    for (const part of all(figure, "[data-line]")) {
      part.classList.toggle("picked", isPicked(part));
      const title = part.querySelector("title");
      if (title && isPicked(part)) said.push(title.textContent);
    }
    for (const button of all(figure, ".pick")) {
      const line = button.closest("[data-line]").dataset.line;
      button.setAttribute("aria-pressed", String(picked.has(key(figure, line))));
    }
    figure.classList.toggle("has-picked", said.length > 0);
    const readout = figure.querySelector(".readout");
    if (readout) readout.textContent = said.join("\n") || readout.dataset.empty;
  }

  function tableKey(table) {
    const part = table.closest("section") || document.body;
    const heading = part.querySelector("h2");
    return `${heading ? heading.id : ""}/${all(part, "table").indexOf(table)}`;
  }

  function sortValue(row, column) {
    const text = row.cells[column].textContent.trim().replaceAll("−", "-");
    const [found] = text.match(/[-+]?(\d[\d.]*(e[-+]?\d+)?|∞)/) || [null];
    return found === null ? null : Number(found.replace("∞", "Infinity"));
  }

  function compare(column, numeric, direction) {
    return (a, b) => {
      if (!numeric) {
        const texts = [a, b].map((row) => row.cells[column].textContent.trim());
        return direction * texts[0].localeCompare(texts[1], "en", { numeric: true });
      }
      const [x, y] = [sortValue(a, column), sortValue(b, column)];
      if (x === null || y === null) return (x === null) - (y === null); // gaps come last
      return x === y ? 0 : direction * (x < y ? -1 : 1);
    };
  }

  function sortTable(table) {
    const [column, direction] = sorted.get(tableKey(table)) || [-1, 0];
    const rows = all(table.tBodies[0], "tr");
    rows.forEach((row, place) => (row.dataset.place ??= place));
    const original = (a, b) => a.dataset.place - b.dataset.place;
    const numeric = column >= 0 && table.tHead.rows[0].cells[column].classList.contains("number");
    rows.sort(original);
    if (direction) rows.sort(compare(column, numeric, direction));
    const moved = rows.some((row, place) => row !== table.tBodies[0].rows[place]);
    if (moved) table.tBodies[0].append(...rows); // moving a row takes the focus from it
    [...table.tHead.rows[0].cells].forEach((cell, place) => {
      const order = place === column ? { 1: "ascending", "-1": "descending" }[direction] : null;
      if (order) cell.setAttribute("aria-sort", order);
      else cell.removeAttribute("aria-sort");
    });
  }

  function nextOrder(cell) {
    const first = cell.classList.contains("number") ? -1 : 1; // numbers: the largest first
    const [column, direction] = sorted.get(tableKey(cell.closest("table"))) || [-1, 0];
    if (column !== cell.cellIndex) return [cell.cellIndex, first];
    return direction === first ? [column, -first] : [-1, 0];
  }

  function makeSortable(table) {
    if (!table.tHead || table.tBodies[0].rows.length < 2 || table.matches(".tints")) return;
    for (const cell of table.tHead.rows[0].cells) {
      if (cell.querySelector("button")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...cell.childNodes);
      cell.append(button);
    }
    sortTable(table);
  }

  function enhance() {
    document.documentElement.classList.add("scripted");
    for (const bar of all(document, ".toggles[hidden], .readout[hidden]")) bar.hidden = false;
    for (const button of all(document, ".pick")) button.disabled = false;
    for (const readout of all(document, ".readout")) {
      readout.dataset.empty = "Point at a line, or choose it in the table, to see its values.";
    }
    for (const figure of all(document, "figure[data-figure]")) {
      showLines(figure);
      showPicked(figure);
      const table = figure.querySelector("details");
      if (table) table.open = opened.has(figure.dataset.figure);
    }
    for (const table of all(document, "main table")) makeSortable(table);
  }

  document.addEventListener("click", ({ target }) => {
    const figure = figureOf(target);
    const toggle = target.closest("[data-toggle]");
    const sort = target.closest(".sort");
    const line = target.closest(".pick") || target.closest("svg [data-line]");
    if (toggle) {
      flip(hidden, key(figure, toggle.dataset.toggle));
      showLines(figure);
    } else if (sort) {
      const table = sort.closest("table");
      sorted.set(tableKey(table), nextOrder(sort.closest("th")));
      sortTable(table);
    } else if (line) {
      flip(picked, key(figure, line.closest("[data-line]").dataset.line));
      showPicked(figure);
    }
  });

  // Pointing at a line or its row, or moving the focus to its button, highlights it in passing.
  let passed = null;
  function pass({ target }) {
    const figure = target instanceof Element ? target.closest("figure.parallel") : null;
    if (passed && passed !== figure) showPicked(passed);
    passed = figure;
    if (!figure) return;
    const line = target.closest("[data-line]");
    showPicked(figure, line ? line.dataset.line : null);
  }
  document.addEventListener("pointerover", pass);
  document.addEventListener("focusin", pass);
  document.addEventListener("focusout", ({ target }) => {
    const figure = figureOf(target);
    if (figure) showPicked(figure);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !picked.size) return;
    picked.clear();
    for (const figure of all(document, "figure.parallel")) showPicked(figure);
  });
  document.addEventListener(
    "toggle",
    ({ target }) => {
      const figure = target instanceof Element ? figureOf(target) : null;
      if (!figure) return;
      if (target.open) opened.add(figure.dataset.figure);
      else opened.delete(figure.dataset.figure);
    },
    true,
  );
  document.addEventListener("report:replaced", enhance);
  enhance();
})();
