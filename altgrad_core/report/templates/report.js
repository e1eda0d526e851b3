"use strict";
// Makes the report's charts answer and its tables sort. The page is whole without it: each chart is a
// picture until it is drawn here. What a reader has chosen is kept here and not in the page, whose parts
// may be replaced while a suite is running (see live.js, which calls window.report.prepare first).
(() => {
  const NARROW = 480;
  const off = new Map(); // figure -> names of the lines that are switched off
  const sorted = new Map(); // table -> [column, direction]
  const all = (root, selector) => [...root.querySelectorAll(selector)];
  const room = () => document.querySelector(".opening").clientWidth;

  function parsed(text) {
    const spec = JSON.parse(text);
    for (const [name, { columns, rows }] of Object.entries(spec.datasets ?? {})) {
      const record = (row) => Object.fromEntries(columns.map((column, k) => [column, row[k]]));
      spec.datasets[name] = rows.map(record);
    }
    return spec;
  }

  // A chart as wide as the page has room for: fewer panels beside one another, shorter labels.
  function fitted(spec, width) {
    if (spec.facet) {
      const panel = spec.spec.width;
      spec.columns = Math.max(1, Math.min(spec.columns, Math.floor((width - 50) / (panel + 20))));
      if (spec.columns === 1) spec.spec.width = Math.min(1.5 * panel, width - 70);
    } else if (spec.width > width) {
      spec.width = width;
    }
    if (width < NARROW) {
      if (spec.layer) spec.layer = spec.layer.filter((part) => !part.name?.startsWith("wide"));
      spec.config.axisY = { ...spec.config.axisY, labelLimit: width / 3 };
      spec.config.legend = { ...spec.config.legend, columns: 1, labelLimit: width - 60 };
    }
    return spec;
  }

  async function draw(figure) {
    const width = room();
    if (figure.dataset.width === String(width)) return;
    figure.dataset.width = width;
    const name = figure.dataset.figure;
    const spec = fitted(parsed(figure.querySelector("script").textContent), width);
    for (const param of spec.params ?? []) {
      if (off.get(name)?.has(param.bind?.name)) param.value = false;
    }
    const [chart, toggles] = [document.createElement("div"), document.createElement("div")];
    const options = { mode: "vega-lite", renderer: "svg", actions: false, bind: toggles };
    try {
      await window.vegaEmbed(chart, spec, { ...options, ast: true, logLevel: 1 });
    } catch (error) {
      console.error(`${name}: ${error.message}`);
      return; // the picture stays
    }
    figure.querySelector(".chart").replaceChildren(chart);
    figure.querySelector(".toggles").replaceChildren(...toggles.querySelectorAll(".vega-bind"));
  }

  document.addEventListener("change", ({ target }) => {
    const bound = target.closest(".toggles .vega-bind");
    if (!bound) return;
    const figure = bound.closest("figure").dataset.figure;
    if (!off.has(figure)) off.set(figure, new Set());
    const name = bound.querySelector(".vega-bind-name").textContent;
    off.get(figure)[target.checked ? "delete" : "add"](name);
  });

  function tableKey(table) {
    const part = table.closest("section") ?? table.parentElement;
    return `${part.querySelector("h2")?.id}/${all(part, "table").indexOf(table)}`;
  }

  function sortValue(text) {
    const [found] = text.replaceAll("−", "-").match(/[-+]?(\d[\d.]*(e[-+]?\d+)?|∞)/) ?? [null];
    return found === null ? null : Number(found.replace("∞", "Infinity"));
  }

  function compare(a, b, numeric) {
    if (!numeric) return (direction) => direction * a.localeCompare(b, "en", { numeric: true });
    const [x, y] = [sortValue(a), sortValue(b)];
    if (x === null || y === null) return () => (x === null) - (y === null); // gaps come last
    return (direction) => (x === y ? 0 : direction * (x < y ? -1 : 1));
  }

  function sortTable(table) {
    const [column, direction] = sorted.get(tableKey(table)) ?? [-1, 0];
    const heads = [...table.tHead.rows[0].cells];
    const rows = all(table.tBodies[0], "tr");
    rows.forEach((row, place) => (row.dataset.place ??= place));
    rows.sort((a, b) => a.dataset.place - b.dataset.place);
    const numeric = heads[column]?.classList.contains("number");
    const text = (row) => row.cells[column].textContent.trim();
    if (direction) rows.sort((a, b) => compare(text(a), text(b), numeric)(direction));
    const moved = rows.some((row, place) => row !== table.tBodies[0].rows[place]);
    if (moved) table.tBodies[0].append(...rows); // moving a row takes the focus from it
    heads.forEach((cell, place) => {
      const order = place === column && { 1: "ascending", "-1": "descending" }[direction];
      if (order) cell.setAttribute("aria-sort", order);
      else cell.removeAttribute("aria-sort");
    });
  }

  function nextOrder(cell) {
    const first = cell.classList.contains("number") ? -1 : 1; // numbers: the largest first
    const [column, direction] = sorted.get(tableKey(cell.closest("table"))) ?? [-1, 0];
    if (column !== cell.cellIndex) return [cell.cellIndex, first];
    return direction === first ? [column, -first] : [-1, 0];
  }

  function makeSortable(table) {
    if (table.tBodies[0].rows.length < 2) return;
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

  document.addEventListener("click", ({ target }) => {
    const sort = target.closest(".sort");
    if (!sort) return;
    sorted.set(tableKey(sort.closest("table")), nextOrder(sort.closest("th")));
    sortTable(sort.closest("table"));
  });

  async function prepare(root) {
    for (const table of all(root, "table")) makeSortable(table);
    for (const figure of all(root, "figure[data-figure]")) await draw(figure);
  }

  let waiting = 0;
  const main = document.querySelector("main");
  window.addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => prepare(main), 200);
  });
  window.report = { prepare };
  prepare(main).then(() => (document.documentElement.dataset.drawn = "yes"));
})();
