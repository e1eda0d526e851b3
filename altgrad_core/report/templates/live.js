// Keeps a served report up to date: asks for the progress every two seconds, and for the report when
// the progress says that there is a newer one. Only parts that differ are replaced; what the reader
// was looking at stays where it is on the screen.
(() => {
  const EVERY = 2000;
  const banner = document.querySelector(".live");
  const note = banner.querySelector(".note");
  const progress = banner.querySelector(".progress");
  const main = document.querySelector("main");
  const nav = document.querySelector("nav ul");
  const shown = new Map(); // part of the report -> its HTML as it came
  document.documentElement.style.overflowAnchor = "none"; // the browser's own keeping in place

  async function ask(path) {
    const answer = await fetch(path, { cache: "no-store" });
    const text = await answer.text();
    if (!answer.ok) throw new Error(text);
    return new DOMParser().parseFromString(text, "text/html");
  }

  function say(text) {
    if (note.textContent !== text) note.textContent = text; // a screen reader says each change
  }

  const partKey = (part) => part.querySelector("h2")?.id ?? part.className;
  const stops = (root) => [...root.querySelectorAll("a, button, input, [tabindex]")];

  // Runs `change`, which replaces things inside `root`, and puts focus and inner scrolling back.
  function keeping(root, change) {
    const focus = stops(root()).indexOf(document.activeElement);
    const scrolled = [...root().querySelectorAll(".scroll")].map((e) => [e.scrollLeft, e.scrollTop]);
    change();
    [...root().querySelectorAll(".scroll")].forEach((element, place) => {
      if (scrolled[place]) [element.scrollLeft, element.scrollTop] = scrolled[place];
    });
    if (focus >= 0) stops(root())[focus]?.focus({ preventScroll: true });
  }

  function inPlace(change) {
    const before = [...main.children].find((part) => part.getBoundingClientRect().bottom > 0);
    const anchor = before && window.scrollY > 0 ? partKey(before) : null;
    const top = before?.getBoundingClientRect().top;
    change();
    const after = [...main.children].find((part) => partKey(part) === anchor);
    if (anchor === null || !after) return;
    window.scrollBy({ top: after.getBoundingClientRect().top - top, behavior: "instant" });
  }

  function showProgress(fresh) {
    const part = fresh.querySelector(".progress");
    if (shown.get(progress) === part.innerHTML) return;
    shown.set(progress, part.innerHTML);
    inPlace(() => keeping(() => progress, () => progress.replaceChildren(...part.childNodes)));
  }

  function showReport(fresh, texts) {
    const wanted = [...texts.keys()];
    const names = wanted.map(partKey);
    const find = (name) => [...main.children].find((part) => partKey(part) === name);
    for (const part of [...main.children]) {
      if (!names.includes(partKey(part))) part.remove();
    }
    wanted.forEach((part, place) => {
      const [name, text] = [names[place], texts.get(part)];
      const old = find(name);
      if (!old) main.insertBefore(part, main.children[place] ?? null);
      else if (shown.get(name) !== text) {
        keeping(() => find(name), () => old.replaceWith(part));
      }
      shown.set(name, text);
    });
    nav.replaceChildren(...fresh.querySelector("nav ul").childNodes);
    document.title = fresh.title;
    main.dataset.version = fresh.querySelector("main").dataset.version;
  }

  // Draws what is new before it is shown, so that nothing jumps.
  async function prepare(fresh) {
    const wanted = [...fresh.querySelector("main").children];
    const texts = new Map(wanted.map((part) => [part, part.outerHTML]));
    for (const part of wanted) {
      if (shown.get(partKey(part)) !== texts.get(part)) await window.report.prepare(part);
    }
    return texts;
  }

  async function update() {
    try {
      const fresh = await ask("progress");
      showProgress(fresh);
      if (fresh.querySelector(".progress").dataset.version !== main.dataset.version) {
        const report = await ask("./");
        const texts = await prepare(report);
        inPlace(() => showReport(report, texts));
        say(`Report as of ${new Date().toLocaleTimeString("en-GB")}.`);
      }
    } catch (error) {
      say(`The server does not answer (${error.message}). The page stays as it is; trying again.`);
    }
  }

  async function loop() {
    if (!document.hidden) await update();
    setTimeout(loop, EVERY);
  }
  setTimeout(loop, EVERY);
})();
