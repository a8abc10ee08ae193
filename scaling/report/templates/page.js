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

  const draw = (dark, size) => {
    for (const canvas of document.querySelectorAll(".canvas")) {
      const { dark: change, ...light } = structuredClone(figures[canvas.dataset.figure]);
      const { data, layout } = dark ? changed(light, change) : light;
      const narrow = canvas.clientWidth < 480 && !size;
      if (narrow) Object.assign(layout.font, { size: 11 });
      const bar = !narrow && window.matchMedia("(hover: hover)").matches ? "hover" : false;
      Plotly.react(canvas, data, Object.assign(layout, size), { ...figures.config, displayModeBar: bar });
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

  draw(night.matches);
  for (const canvas of document.querySelectorAll(".canvas")) canvas.on("plotly_relayout", () => retick(canvas));
  night.addEventListener("change", () => draw(night.matches));
  window.addEventListener("beforeprint", () => draw(false, { width: 660, height: 350, autosize: false }));
  window.addEventListener("afterprint", () => draw(night.matches, { width: undefined, height: undefined, autosize: true }));
})();
