// Sorting, filters and charts of the page. All text is shown by the browser as text.
const $ = globalThis.jQuery;
const { specs, datasets } = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const views = new Map(); // by element
const state = { method: "", picked: [] };
const NARROW = matchMedia("(max-width: 48rem)");
const AXES = 72; // pixels that the axis of a panel takes beside it

// Tables

const tables = $("table[data-sortable]").toArray().map((table) => {
  const paged = "paged" in table.dataset && table.tBodies[0].rows.length > 25;
  return $(table).DataTable({
    autoWidth: false,
    columnDefs: [
      { targets: "score", orderSequence: ["desc", "asc"] }, // the best first
      { targets: "gap", orderSequence: ["asc", "desc"] },
    ],
    info: paged,
    order: [],
    orderMulti: false,
    paging: paged,
    pageLength: 25,
    searching: true,
    layout: {
      topStart: null,
      topEnd: paged ? "search" : null,
      bottomStart: paged ? "info" : null,
      bottomEnd: paged ? "paging" : null,
    },
  });
});

// Charts

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function config() {
  const ink = colour("--ink"), soft = colour("--soft"), line = colour("--line");
  const text = { labelColor: ink, titleColor: soft, labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal" };
  return {
    background: null,
    font: "system-ui, sans-serif",
    view: { stroke: line },
    axis: { ...text, gridColor: line, gridOpacity: 0.6, domainColor: soft, tickColor: soft },
    legend: text,
    title: { color: ink, fontSize: 12, anchor: "start" },
    text: { fill: ink, fontSize: 11 },
  };
}

async function draw(element) {
  if (views.has(element)) return;
  views.set(element, null); // on its way
  const spec = structuredClone(specs[element.dataset.chart]);
  spec.datasets = Object.fromEntries(names(spec).map((name) => [name, datasets[name]]));
  fit(spec, element.clientWidth);
  const made = await globalThis.vegaEmbed(element, spec, {
    actions: false, ast: true, config: config(), renderer: "svg", mode: "vega-lite",
    tooltip: { disableDefaultStyle: true },
  });
  views.set(element, made);
  element.classList.add("done");
  point(made);
}

// Fades what is not asked for.
function point(made) {
  made.view.signal("wanted", state.method).signal("picked", state.picked).runAsync();
}

// As many panels beside each other as there is room for, and none wider than that.
function fit(spec, room) {
  const panels = spec.vconcat ?? spec.concat;
  if (!panels) {
    if (typeof spec.width === "number") spec.width = Math.max(160, Math.min(spec.width, room - AXES));
    return;
  }
  if (spec.concat) {
    const names = panels.flatMap(axesWithNames);
    const width = Math.max(...names.map((axis) => axis.room), 0);
    // Two small ones rather than one: their numbers are read beside each other.
    const half = room / 2 - AXES - 12;
    if (!width && panels.length > 1 && half < panels[0].width && half >= 150) {
      for (const panel of panels) {
        if (panel.height === panel.width) panel.height = half;
        panel.width = half;
      }
    }
    spec.columns = Math.max(1, Math.min(spec.columns ?? panels.length, Math.floor((room - width) / (panels[0].width + (width ? 24 : AXES)))));
    panels.forEach((panel, at) => axesWithNames(panel).forEach(({ axis }) => { axis.labels = at % spec.columns === 0; }));
    room -= Math.max(0, width - AXES);
  }
  for (const panel of panels) fit(panel, room);
}

// The axes of a panel that name methods, in its first column only, and how wide the names are.
function axesWithNames(panel) {
  const encoded = (panel.layer ?? [panel]).map((layer) => layer.encoding?.y).filter((y) => y?.field === "method");
  return encoded.map((y) => ({ axis: y.axis, room: Math.min(220, 6.5 * Math.max(...y.scale.domain.map((name) => name.length))) }));
}

// The data that a chart asks for by name.
function names(spec) {
  const found = new Set();
  JSON.stringify(spec, (key, value) => {
    if (key === "data" && value && value.name in datasets) found.add(value.name);
    return value;
  });
  return [...found];
}

const charts = [...document.querySelectorAll(".chart")];
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target);
}, { rootMargin: "800px" });

// Those that are seen come first, the others when there is time: paper shows them all.
async function drawOthers() {
  for (const element of charts) {
    await draw(element);
    await new Promise((resume) => setTimeout(resume, 20));
  }
  document.documentElement.dataset.charts = "done";
}

async function redraw() {
  for (const [element, made] of [...views]) {
    if (!made) continue;
    made.finalize();
    views.delete(element);
    await draw(element);
  }
}

charts.forEach((element) => near.observe(element));
setTimeout(drawOthers, 300);
dark.addEventListener("change", redraw);

// Another width, another number of panels beside each other.
let width = document.body.clientWidth, resized;
addEventListener("resize", () => {
  if (document.body.clientWidth === width) return;
  width = document.body.clientWidth;
  clearTimeout(resized);
  resized = setTimeout(redraw, 200);
});

// Legends: what is chosen in one is chosen in all charts.

const choices = [...document.querySelectorAll(".legend button[data-method]")];

function choose(names, on) {
  state.picked = on
    ? [...new Set([...state.picked, ...names])]
    : state.picked.filter((name) => !names.includes(name));
  for (const button of choices) button.ariaPressed = state.picked.includes(button.dataset.method);
  for (const family of document.querySelectorAll(".legend .family")) {
    family.ariaPressed = namesOf(family).every((name) => state.picked.includes(name));
  }
  for (const made of views.values()) if (made) point(made);
}

const namesOf = (family) =>
  [...family.parentElement.querySelectorAll("[data-method]")].map((button) => button.dataset.method);

document.addEventListener("click", (event) => {
  const button = event.target.closest(".legend button");
  if (!button) return;
  const names = button.dataset.method === undefined ? namesOf(button) : [button.dataset.method];
  choose(names, button.ariaPressed !== "true");
});

// Filters

const form = document.querySelector(".filters");

function narrow() {
  const chosen = Object.fromEntries(["task", "backbone", "shots"].map((key) => [key, form.elements[key]?.value]));
  let shown = 0;
  for (const board of document.querySelectorAll(".board")) {
    board.hidden = Object.entries(chosen).some(([key, value]) => value && value !== `=${board.dataset[key]}`);
    shown += !board.hidden;
  }
  state.method = form.elements.method.value.trim().toLowerCase();
  for (const table of tables) {
    table.columns(".method").search(state.method, { regex: false, smart: false }).draw();
  }
  for (const made of views.values()) if (made) point(made);
  const all = document.querySelectorAll(".board").length;
  form.querySelector("output").textContent = all > 1 ? `${shown} of ${all} rankings` : "";
  document.body.classList.toggle("with-intervals", form.elements.intervals.checked);
}

if (form) {
  if (NARROW.matches) form.elements.intervals.checked = false;
  form.addEventListener("input", narrow);
  form.addEventListener("submit", (event) => event.preventDefault());
  narrow(); // a browser may have kept what was chosen
}

// Paper shows all rows.

addEventListener("beforeprint", () => {
  for (const table of tables) table.page.len(-1).draw(false);
  for (const details of document.querySelectorAll("details")) details.open = true;
});
addEventListener("afterprint", () => {
  for (const table of tables) table.page.len(25).draw(false);
});
