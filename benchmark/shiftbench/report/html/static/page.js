// Sorting, filters and charts of the page. All text is shown by the browser as text.
const $ = globalThis.jQuery;
const { specs, datasets } = JSON.parse(document.getElementById("charts").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const views = new Map(); // by element
const state = { method: "" };

// Tables

const tables = $("table[data-sortable]").toArray().map((table) => {
  const paged = "paged" in table.dataset && table.tBodies[0].rows.length > 25;
  return $(table).DataTable({
    autoWidth: false,
    columnDefs: [{ targets: "score", orderSequence: ["desc", "asc"] }], // the best first
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
  };
}

async function draw(element) {
  if (views.has(element)) return;
  views.set(element, null); // on its way
  const spec = structuredClone(specs[element.dataset.chart]);
  spec.datasets = Object.fromEntries(names(spec).map((name) => [name, datasets[name]]));
  const made = await globalThis.vegaEmbed(element, spec, {
    actions: false, ast: true, config: config(), renderer: "svg", mode: "vega-lite",
    tooltip: { disableDefaultStyle: true },
  });
  views.set(element, made);
  element.classList.add("done");
  if (state.method) made.view.signal("wanted", state.method).runAsync();
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

// Filters

const form = document.querySelector(".filters");

function narrow() {
  const chosen = Object.fromEntries(["task", "backbone", "shots"].map((key) => [key, form.elements[key].value]));
  let shown = 0;
  for (const board of document.querySelectorAll(".board")) {
    board.hidden = Object.entries(chosen).some(([key, value]) => value && value !== `=${board.dataset[key]}`);
    shown += !board.hidden;
  }
  state.method = form.elements.method.value.trim().toLowerCase();
  for (const table of tables) {
    table.columns(".method").search(state.method, { regex: false, smart: false }).draw();
  }
  for (const made of views.values()) made?.view.signal("wanted", state.method).runAsync();
  form.querySelector("output").textContent = `${shown} of ${document.querySelectorAll(".board").length} rankings`;
  document.body.classList.toggle("with-intervals", form.elements.intervals.checked);
}

if (form) {
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
