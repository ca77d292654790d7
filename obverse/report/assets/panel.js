/* Panel: one picture with its colour bar. All panels share one view (centre, zoom, plane), so they move together. */

class Panel {
  constructor(figure, source, app) {
    Object.assign(this, { figure, source, app, key: null, values: null });
    this.canvas = figure.querySelector("canvas.picture");
    this.picture = document.createElement("canvas");
    this.small = !figure.querySelector("canvas.bar");
    this.listen();
  }

  /* Pixels on the screen per image pixel, and where the image's corner lies. */
  frame() {
    const { size, view } = this.app, ratio = window.devicePixelRatio || 1;
    const px = (this.canvas.clientWidth / size.width) * view.zoom * ratio, py = px * size.aspect;
    return { ratio, px, py, left: this.canvas.width / 2 - view.x * px, top: this.canvas.height / 2 - view.y * py };
  }

  /* Image pixel under a pointer event (integers), or null outside. */
  locate(event, clamp = false) {
    const box = this.canvas.getBoundingClientRect(), f = this.frame(), { size } = this.app;
    let x = Math.floor(((event.clientX - box.left) * f.ratio - f.left) / f.px);
    let y = Math.floor(((event.clientY - box.top) * f.ratio - f.top) / f.py);
    if (clamp) {
      x = Math.max(0, Math.min(size.width - 1, x));
      y = Math.max(0, Math.min(size.height - 1, y));
    }
    return x < 0 || y < 0 || x >= size.width || y >= size.height ? null : { x, y };
  }

  draw() {
    const { size, view } = this.app, ratio = window.devicePixelRatio || 1;
    const wide = this.canvas.clientWidth;
    if (!wide) return;
    const width = Math.round(wide * ratio), height = Math.round(((wide * size.height * size.aspect) / size.width) * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      this.canvas.width = width;
      this.canvas.height = height;
    }
    const key = this.source.key();
    if (key !== this.key) {
      this.key = key;
      this.values = this.source.values();
      this.paint();
    }
    const context = this.canvas.getContext("2d"), f = this.frame();
    context.fillStyle = getComputedStyle(this.figure).getPropertyValue("--well");
    context.fillRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    context.drawImage(this.picture, f.left, f.top, size.width * f.px, size.height * f.py);
    this.mark(context, f);
    if (this.app.data.overlay && !this.small) this.overlay(context, f, this.app.data.overlay);
    if (view.scale && !this.small) this.scaleBar(context, f);
  }

  paint() {
    const { size } = this.app, { map, limits } = this.source.look();
    this.picture.width = size.width;
    this.picture.height = size.height;
    this.picture.getContext("2d").putImageData(colourise(this.values, size.width, size.height, map, ...limits), 0, 0);
    if (this.small) return;
    drawBar(this.figure.querySelector("canvas.bar"), map);
    this.figure.querySelector(".low").textContent = show(limits[0], 3);
    this.figure.querySelector(".high").textContent = show(limits[1], 3);
  }

  mark(context, f) {
    const { pixel, regions, drag, plane } = this.app;
    const line = (path) => {
      context.lineWidth = 3.5 * f.ratio;
      context.strokeStyle = "rgba(0, 0, 0, 0.75)";
      context.stroke(path);
      context.lineWidth = 1.5 * f.ratio;
      context.strokeStyle = "#ffffff";
      context.stroke(path);
    };
    if (pixel && (plane.all || pixel.z === plane.z)) {
      const x = f.left + (pixel.x + 0.5) * f.px, y = f.top + (pixel.y + 0.5) * f.py;
      const path = new Path2D(), arm = 9 * f.ratio, gap = Math.max(3 * f.ratio, f.px / 2);
      for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        path.moveTo(x + gap * dx, y + gap * dy);
        path.lineTo(x + (gap + arm) * dx, y + (gap + arm) * dy);
      }
      line(path);
    }
    for (const box of drag ? [...regions, drag] : regions) {
      if (box.z !== plane.z && !plane.all) continue;
      const path = new Path2D();
      path.rect(f.left + box.x0 * f.px, f.top + box.y0 * f.py, (box.x1 - box.x0 + 1) * f.px, (box.y1 - box.y0 + 1) * f.py);
      line(path);
      if (!box.name) continue;
      context.font = `600 ${12 * f.ratio}px system-ui, sans-serif`;
      context.lineWidth = 3 * f.ratio;
      context.strokeStyle = "#000000";
      const at = [f.left + box.x0 * f.px + 4 * f.ratio, f.top + box.y0 * f.py + 14 * f.ratio];
      context.strokeText(box.name, ...at);
      context.fillStyle = "#ffffff";
      context.fillText(box.name, ...at);
    }
  }

  /* Of a search: circles about candidates with their names, a cross on the star, and arrows to North and East. */
  overlay(context, f, { circles, star, north }) {
    const { ratio } = f, at = ({ x, y }) => [f.left + (x + 0.5) * f.px, f.top + (y + 0.5) * f.py];
    const stroke = (path, colour, width) => {
      for (const [style, extra] of [["rgba(0, 0, 0, 0.75)", 1.5], [colour, 0]]) {
        context.lineWidth = (width + extra) * ratio;
        context.strokeStyle = style;
        context.stroke(path);
      }
    };
    const write = (text, x, y) => {
      context.font = `600 ${13 * ratio}px system-ui, sans-serif`;
      context.lineWidth = 3 * ratio;
      context.strokeStyle = "#000000";
      context.strokeText(text, x, y);
      context.fillStyle = "#ffffff";
      context.fillText(text, x, y);
    };
    // The frame as taken is not turned to the sky: only the star is where the maps have it.
    for (const circle of this.figure.dataset.panel === "data" ? [] : circles) {
      const [x, y] = at(circle), radius = Math.max(circle.radius * f.px, 5 * ratio), path = new Path2D();
      path.arc(x, y, radius, 0, 2 * Math.PI);
      stroke(path, "#7fe3ff", 1.6);
      write(circle.name, x + 0.75 * radius + 3 * ratio, y - 0.75 * radius - 2 * ratio);
    }
    if (star) {
      const [x, y] = at(star), arm = 5 * ratio, path = new Path2D();
      path.moveTo(x - arm, y);
      path.lineTo(x + arm, y);
      path.moveTo(x, y - arm);
      path.lineTo(x, y + arm);
      stroke(path, "#ffffff", 1.4);
    }
    if (!north || this.figure.dataset.panel === "data") return;
    const [x, y] = [this.canvas.width - 16 * ratio, this.canvas.height - 14 * ratio], length = 30 * ratio, tip = 5 * ratio;
    const path = new Path2D();
    path.moveTo(x - length, y);
    path.lineTo(x, y);
    path.lineTo(x, y - length);
    path.moveTo(x - length + tip, y - tip);
    path.lineTo(x - length, y);
    path.lineTo(x - length + tip, y + tip);
    path.moveTo(x - tip, y - length + tip);
    path.lineTo(x, y - length);
    path.lineTo(x + tip, y - length + tip);
    stroke(path, "#ffffff", 1.6);
    write("N", x - 4 * ratio, y - length - 5 * ratio);
    write("E", x - length - 14 * ratio, y + 4 * ratio);
  }

  /* A bar of a round length (1, 2 or 5 times a power of ten), about a fifth of the panel. */
  scaleBar(context, f) {
    const { step, unit } = this.app.size, ratio = f.ratio;
    const wanted = ((this.canvas.width / 5) * step) / f.px, power = 10 ** Math.floor(Math.log10(wanted));
    const length = power * [5, 2, 1].find((round) => round * power <= wanted);
    const width = (length / step) * f.px, x = 12 * ratio, y = this.canvas.height - 14 * ratio;
    context.fillStyle = "rgba(0, 0, 0, 0.6)";
    context.font = `500 ${12 * ratio}px system-ui, sans-serif`;
    const text = `${show(length)} ${unit}`, label = context.measureText(text).width;
    context.fillRect(x - 6 * ratio, y - 19 * ratio, Math.max(width, label) + 12 * ratio, 28 * ratio);
    context.fillStyle = "#ffffff";
    context.fillRect(x, y, width, 3 * ratio);
    context.fillText(text, x, y - 5 * ratio);
  }

  listen() {
    const { canvas, app } = this;
    let start = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      const at = this.locate(event, true);
      start = { event, view: { ...app.view }, at, moved: false, region: app.covariance && !app.plane.all && (app.mode === "region" || event.shiftKey) };
    });
    canvas.addEventListener("pointermove", (event) => {
      app.onhover(this.locate(event));
      if (!start) return;
      const dx = event.clientX - start.event.clientX, dy = event.clientY - start.event.clientY;
      if (Math.hypot(dx, dy) > 4) start.moved = true;
      if (!start.moved) return;
      if (start.region) {
        app.dragTo(start.at, this.locate(event, true));
      } else {
        const f = this.frame();
        app.look({ x: start.view.x - (dx * f.ratio) / f.px, y: start.view.y - (dy * f.ratio) / f.py });
      }
    });
    canvas.addEventListener("pointerup", (event) => {
      if (start && start.region && start.moved) app.endDrag();
      else if (start && !start.moved && this.locate(event)) app.pick(this.locate(event));
      start = null;
    });
    canvas.addEventListener("pointercancel", () => { start = null; app.cancelDrag(); });
    canvas.addEventListener("pointerleave", () => app.onhover(null));
    canvas.addEventListener("dblclick", () => app.reset());
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
      event.preventDefault();
      app.zoomBy(Math.exp(-event.deltaY / 400), this.locate(event, true));
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const step = app.size.width / app.view.zoom / 10, { x, y } = app.view;
      const moves = {
        ArrowLeft: () => app.look({ x: x - step }), ArrowRight: () => app.look({ x: x + step }),
        ArrowUp: () => app.look({ y: y - step }), ArrowDown: () => app.look({ y: y + step }),
        "+": () => app.zoomBy(1.25), "=": () => app.zoomBy(1.25), "-": () => app.zoomBy(0.8), 0: () => app.reset(),
        PageUp: () => app.setPlane(app.plane.z + 1), PageDown: () => app.setPlane(app.plane.z - 1),
      };
      if (!moves[event.key] || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      moves[event.key]();
    });
  }
}
