/* Film: the path through the mean along a component, as a strip of pictures of the place where it lies. */

function drawFilm(app) {
  all("[data-film]").forEach((row) => {
    const k = Number(row.dataset.film), { c, z, x, y, width, height } = app.data.windows[k];
    const start = app.index({ c, z, y: 0, x: 0 }), { area } = app.size;
    const cut = (plane) => {
      const part = new Float32Array(width * height);
      for (let j = 0; j < height; j++) for (let i = 0; i < width; i++) part[j * width + i] = plane[(y + j) * app.size.width + x + i];
      return part;
    };
    const mean = cut(app.arrays.mean.subarray(start, start + area));
    const step = cut(app.covariance.change(app.t.map((_, other) => +(other === k)), start, area));
    const peak = step.reduce((most, value) => Math.max(most, Math.abs(value)), 1e-30);
    /* A change that no eye would see is shown stronger, by a round factor, and the page says so. */
    const range = percentiles(mean, app.data.clip), contrast = range[1] - range[0];
    const gain = 3 * peak > 0.2 * contrast ? 1 : [1000, 500, 200, 100, 50, 20, 10, 5, 2, 1].find((g) => 3 * peak * g <= 0.6 * contrast) || 1;
    const canvases = Array.from(row.querySelectorAll("canvas"));
    const frames = canvases.slice(1).map((_, j) => mean.map((value, i) => value + gain * (j - 3) * step[i]));
    const everything = new Float32Array(frames.length * mean.length);
    frames.forEach((frame, j) => everything.set(frame, j * mean.length));
    const limits = percentiles(everything, app.data.clip);
    const paint = (canvas, values, map, low, high) => {
      Object.assign(canvas, { width, height });
      canvas.getContext("2d").putImageData(colourise(values, width, height, map, low, high), 0, 0);
    };
    paint(canvases[0], step, "diverging", -peak, peak);
    frames.forEach((frame, j) => paint(canvases[j + 1], frame, app.map, ...limits));
    row.querySelector(".gain").textContent = gain > 1 ? `Changes in the strip are drawn ${gain} times as strong as they are. ` : "";
    row.querySelector(".limits").textContent = `Colours from ${show(limits[0], 3)} to ${show(limits[1], 3)}, `
      + `red and blue \u00b1${show(peak, 3)} ${app.data.intensity}.`;
  });
}

function wireFilm(app) {
  let known = null;
  app.onchange.push(() => {
    if (known === app.map) return;
    known = app.map;
    drawFilm(app);
  });
}
