/* Controls: the page's elements, wired to the app. Nothing here writes HTML: text goes in as text. */

const $ = (selector) => document.querySelector(selector);
const all = (selector) => Array.from(document.querySelectorAll(selector));

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

function span([first, last]) { return first === last ? `${first}` : `${first}\u2013${last}`; }

function describe(app, at) {
  const { plane, data, arrays } = app, unit = ` ${data.intensity}`;
  const place = `x ${span(app.original("x", at.x))}, y ${span(app.original("y", at.y))}`;
  if (plane.all) return `${place} (maximum projection: choose a plane to read values)`;
  const i = app.index({ c: plane.c, z: plane.z, ...at });
  const parts = [app.size.depth > 1 ? `${place}, z ${span(app.original("z", plane.z))}` : place];
  if (arrays.snr) {
    const limit = `limit ${show(10 ** arrays.limit[i], 3)}`, sigma = `${show(10 ** arrays.sigma[i], 3)}${unit}`;
    return [...parts, `S/N ${show(arrays.snr[i], 3)}`, `flux ${show(arrays.mean[i])} \u00b1 ${sigma}`, limit].join(" \u00b7 ");
  }
  if (arrays.data) parts.push(`data ${show(arrays.data[i])}`);
  parts.push(`reconstruction ${show(arrays.mean[i])}${arrays.std ? `, std ${show(arrays.std[i], 3)}` : ""}${unit}`);
  if (arrays.residual) parts.push(`residual ${show(arrays.residual[i], 2)} \u03c3`);
  return parts.join(" \u00b7 ");
}

function wireToolbar(app) {
  const slider = $("#plane"), projection = $("#projection"), channel = $("#channel");
  if (slider) slider.addEventListener("input", () => app.setPlane(Number(slider.value)));
  if (projection) projection.addEventListener("change", () => app.setProjection(projection.checked));
  if (channel) channel.addEventListener("change", () => app.setChannel(Number(channel.value)));
  $("#map").addEventListener("change", (event) => app.setMap(event.target.value));
  $("#zoom-in").addEventListener("click", () => app.zoomBy(1.5));
  $("#zoom-out").addEventListener("click", () => app.zoomBy(1 / 1.5));
  $("#zoom-reset").addEventListener("click", () => app.reset());
  all("input[name=mode]").forEach((radio) => radio.addEventListener("change", () => app.setMode(radio.value)));
  app.onchange.push(() => {
    document.body.dataset.mode = app.mode;
    $("#map").value = app.map;
    if (!slider) return;
    slider.value = app.plane.z;
    projection.checked = app.plane.all;
    $("#plane-value").textContent = app.plane.all ? "all" : `${span(app.original("z", app.plane.z))} of ${app.data.full.z - 1}`;
  });
  app.onhover = (at) => { $("#readout").textContent = at ? describe(app, at) : $("#readout").dataset.idle; };
}

function wireComponents(app) {
  const rows = all(".component"), label = $("#component-name");
  rows.forEach((row, k) => {
    const slider = row.querySelector("input");
    slider.addEventListener("input", () => app.setComponent(k, Number(slider.value)));
    slider.addEventListener("focus", () => app.select(k));
    row.querySelector("button").addEventListener("click", () => app.select(k));
  });
  if (!rows.length) return;
  $("#components-reset").addEventListener("click", () => app.setComponents([]));
  $("#components-draw").addEventListener("click", () => {
    const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
    app.setComponents(app.t.map(normal));
  });
  app.onchange.push(() => {
    rows.forEach((row, k) => {
      row.classList.toggle("selected", k === app.selected);
      const slider = row.querySelector("input"), amount = app.t[k];
      if (document.activeElement !== slider || Number(slider.value) !== amount) slider.value = amount;
      row.querySelector("output").textContent = `${amount < 0 ? "\u2212" : "+"}${Math.abs(amount).toFixed(1)} std`;
    });
    label.textContent = `Component ${app.selected + 1}: change for +1 std`;
  });
}

function wireCorrelation(app) {
  const form = $("#pick");
  if (!form) return;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const at = (axis) => Math.floor(Number(form.elements[axis].value) / app.data.factors[axis]);
    const z = form.elements.z ? at("z") : 0;
    app.plane = { ...app.plane, z, all: false };
    app.pick({ x: at("x"), y: at("y"), z });
  });
  app.onchange.push(() => {
    if (!app.pixel) return;
    const { x, y, z, c } = app.pixel, i = app.index({ c, z, y, x });
    ["x", "y", "z"].forEach((axis) => {
      const input = form.elements[axis];
      if (input && document.activeElement !== input) input.value = app.original(axis, app.pixel[axis])[0];
    });
    $("#picked").textContent = `Pixel x ${span(app.original("x", x))}, y ${span(app.original("y", y))}`
      + (app.size.depth > 1 ? `, z ${span(app.original("z", z))}` : "")
      + `: ${show(app.arrays.mean[i])}, std ${show(app.arrays.std[i], 3)} ${app.data.intensity}.`;
  });
}

function wireRegions(app) {
  const form = $("#region"), body = $("#regions tbody");
  if (!form) return;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const at = (name) => Math.floor(Number(form.elements[name].value) / app.data.factors[name[0]]);
    const [x0, x1, y0, y1] = ["x0", "x1", "y0", "y1"].map(at);
    app.setProjection(false);
    app.addRegion({ x0: Math.min(x0, x1), x1: Math.max(x0, x1), y0: Math.min(y0, y1), y1: Math.max(y0, y1) });
  });
  let known = null;
  app.onchange.push(() => {
    if (app.regions === known && body.rows.length === app.regions.length) return;
    known = app.regions;
    $("#regions").hidden = !app.regions.length;
    body.replaceChildren(...app.regions.map((region) => {
      const row = document.createElement("tr");
      const ends = (axis, a, b) => span([app.original(axis, a)[0], app.original(axis, b)[1]]);
      const place = `x ${ends("x", region.x0, region.x1)}, y ${ends("y", region.y0, region.y1)}`
        + (app.size.depth > 1 ? `, z ${span(app.original("z", region.z))}` : "")
        + (app.size.channels > 1 ? `, channel ${region.c}` : "");
      const remove = element("button", "\u00d7", { type: "button", "aria-label": `Remove region ${region.name}` });
      remove.addEventListener("click", () => app.removeRegion(region));
      const digits = Math.max(3, Math.min(7, 2 + Math.ceil(Math.log10((Math.abs(region.mean) + region.std) / region.std))));
      row.append(
        element("th", region.name, { scope: "row" }), element("td", place), element("td", show(region.mean, digits)),
        element("td", `${show(region.low, digits)} to ${show(region.high, digits)}`), element("td", show(region.std, 3)),
        element("td", `\u00d7 ${show(region.std / region.independent, 3)}`), element("td", ""));
      row.lastChild.append(remove);
      return row;
    }));
  });
}

function drawAutocorrelation(data) {
  const canvas = $("#autocorrelation");
  if (!canvas) return;
  const [height, width] = data.autocorrelation.shape;
  Object.assign(canvas, { width, height });
  canvas.getContext("2d").putImageData(colourise(decode(data.autocorrelation), width, height, "diverging", -0.2, 0.2), 0, 0);
}
