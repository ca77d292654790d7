/* Start: make the app from the data block and wire the page to it. */

const app = new App(JSON.parse($("#obverse-data").textContent));
all("figure[data-panel]").forEach((figure) => {
  app.panels[figure.dataset.panel] = new Panel(figure, app.source(figure.dataset.panel), app);
});
wireToolbar(app);
wireDraws(app);
wireComponents(app);
wireFilm(app);
wireCorrelation(app);
wireNeighbours(app);
wireRegions(app);
drawAutocorrelation(app.data);
if (app.covariance) app.pick(app.data.peak);
window.addEventListener("resize", () => app.changed());
new ResizeObserver(() => app.changed()).observe($("main"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => app.changed());
window.addEventListener("beforeprint", () => app.draw());
app.changed();
window.obverse = app;
