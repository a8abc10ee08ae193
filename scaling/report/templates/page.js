"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const night = window.matchMedia("(prefers-color-scheme: dark)");
  const axes = ["xaxis", "yaxis"];

  // what changes in the dark is a tree of the same shape as the figure
  const changed = (base, change) => {
    if (change === undefined || change === null) return base;
    if (typeof change !== "object" || Array.isArray(change)) return change;
    for (const key of Object.keys(change)) base[key] = changed(base[key], change[key]);
    return base;
  };

  // beside a narrow figure a colour bar would take a third of it
  const lay = (bar) => {
    Object.assign(bar, { orientation: "h", x: 0.5, xanchor: "center", y: 1, yanchor: "bottom", len: 1, ypad: 6, thickness: 10 });
    bar.title.side = "top";
  };

  // paper is no window: its figures get their size here, three small ones a line
  const paper = (canvas) => canvas.closest(".small") ? { width: 214, height: 230 } : { width: 660, height: 350 };
  const draw = (dark, size) => {
    for (const canvas of document.querySelectorAll(".canvas")) {
      const { dark: change, ...light } = structuredClone(figures[canvas.dataset.figure]);
      const { data, layout } = dark ? changed(light, change) : light;
      const { width, ...fixed } = size(canvas);
      const narrow = (width ?? canvas.clientWidth) < 480;
      canvas.classList.toggle("narrow", narrow);
      if (narrow) {
        layout.font.size = 11;
        for (const { marker } of data) if (marker?.colorbar) lay(marker.colorbar);
      }
      const bar = !narrow && window.matchMedia("(hover: hover)").matches ? "hover" : false;
      Plotly.react(canvas, data, Object.assign(layout, { width, ...fixed }), { ...figures.config, displayModeBar: bar });
      for (const drawing of canvas.querySelectorAll(".main-svg")) drawing.setAttribute("aria-hidden", "true"); // the label, caption and tables say it
    }
  };

  // our ticks are chosen for the whole range; once zoomed, plotly chooses
  const retick = (canvas) => {
    const home = figures[canvas.dataset.figure].layout;
    const update = {};
    for (const axis of axes) {
      const now = canvas.layout[axis];
      const zoomed = now.range.some((end, i) => Math.abs(end - home[axis].range[i]) > 1e-9);
      const mode = zoomed ? "auto" : "array";
      if (now.tickmode !== mode) update[axis + ".tickmode"] = mode;
    }
    if (Object.keys(update).length) Plotly.relayout(canvas, update);
  };

  const screen = () => ({ width: undefined, height: undefined, autosize: true });
  const turned = (canvas) => canvas.classList.contains("narrow") !== canvas.clientWidth < 480;
  draw(night.matches, screen);
  window.addEventListener("resize", () => {
    if (!window.matchMedia("print").matches && [...document.querySelectorAll(".canvas")].some(turned)) draw(night.matches, screen);
  });
  for (const canvas of document.querySelectorAll(".canvas")) canvas.on("plotly_relayout", () => retick(canvas));
  night.addEventListener("change", () => draw(night.matches, screen));
  window.addEventListener("beforeprint", () => draw(false, (canvas) => ({ ...paper(canvas), autosize: false })));
  window.addEventListener("afterprint", () => draw(night.matches, screen));
})();
