/* Draws: buttons that show one draw at a time or let them flicker, and the neighbourhood of the marked pixel. */

const FLICKER = 400; /* milliseconds a draw: below three changes a second, which no eye is harmed by */

function wireDraws(app) {
  const buttons = all("#frames button[data-frame]"), flicker = $("#flicker");
  if (!flicker) return;
  let timer = null;
  const stop = () => { clearInterval(timer); timer = null; };
  const toggle = () => {
    if (timer) stop();
    else timer = setInterval(() => app.setFrame(1 + (app.frame % app.draws.length)), FLICKER);
    app.changed();
  };
  buttons.forEach((button) => button.addEventListener("click", () => { stop(); app.setFrame(Number(button.dataset.frame)); }));
  flicker.addEventListener("click", toggle);
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() !== "f" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input[type=number], select")) return;
    event.preventDefault();
    toggle();
  });
  app.onchange.push(() => {
    flicker.setAttribute("aria-pressed", String(timer !== null));
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.frame) === app.frame)));
    $("#draw-name").textContent = app.frame ? `Draw ${app.frame}` : "Mean";
  });
}

/* The correlation map right around the marked pixel: local correlations are too narrow to be seen in the whole. */
function wireNeighbours(app) {
  const canvas = $("#neighbours");
  if (!canvas) return;
  const [, hy, hx] = app.covariance.half, reach = Math.max(4, Math.min(12, Math.max(hy, hx)));
  const { width, height, area } = app.size, side = 2 * reach + 1;
  let known = null;
  Object.assign(canvas, { width: side, height: side });
  app.onchange.push(() => {
    if (!app.pixel || known === app.index(app.pixel)) return;
    known = app.index(app.pixel);
    const { c, z, y, x } = app.pixel;
    const found = app.correlations(app.index({ c, z, y: 0, x: 0 }), area), limit = app.strongest;
    const near = new Float32Array(side * side).fill(NaN);
    for (let j = 0; j < side; j++) for (let i = 0; i < side; i++) {
      const row = y + j - reach, column = x + i - reach;
      if (row >= 0 && row < height && column >= 0 && column < width) near[j * side + i] = found[row * width + column];
    }
    canvas.getContext("2d").putImageData(colourise(near, side, side, "diverging", -limit, limit), 0, 0);
    $("#neighbours-note").textContent = `Close up: \u00b1${reach} shown pixels around it. Darkest colours: \u00b1${show(limit, 2)}, `
      + "the strongest correlation with another pixel; with itself it is 1.";
  });
}
