"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const night = window.matchMedia("(prefers-color-scheme: dark)");
  const canvases = [...document.querySelectorAll(".canvas")];
  const axes = ["xaxis", "yaxis"];
  const drawn = new Set();

  // what changes in the dark is a tree of the same shape as the figure
  const changed = (base, change) => {
    if (change === undefined || change === null) return base;
    if (typeof change !== "object" || Array.isArray(change)) return change;
    for (const key of Object.keys(change)) base[key] = changed(base[key], change[key]);
    return base;
  };

  // next to a narrow figure a colour bar would take a third of it
  const lay = (bar) => {
    Object.assign(bar, { orientation: "h", x: 0.5, xanchor: "center", y: 1, yanchor: "bottom", len: 1, ypad: 6, thickness: 10 });
    bar.title.side = "top";
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

  const SCREEN = { width: undefined, height: undefined, autosize: true };
  const PAPER = { width: 660, height: 350, autosize: false }; // paper is no window: its figures get their size here
  const draw = (canvas, dark = night.matches, size = SCREEN) => {
    const { dark: change, ...light } = structuredClone(figures[canvas.dataset.figure]);
    const { data, layout } = dark ? changed(light, change) : light;
    const narrow = (size.width ?? canvas.clientWidth) < 480;
    canvas.classList.toggle("narrow", narrow);
    if (narrow) {
      layout.font.size = 11;
      for (const { marker } of data) if (marker?.colorbar) lay(marker.colorbar);
    }
    const bar = !narrow && window.matchMedia("(hover: hover)").matches ? "hover" : false;
    Plotly.react(canvas, data, Object.assign(layout, size), { ...figures.config, displayModeBar: bar });
    for (const drawing of canvas.querySelectorAll(".main-svg")) drawing.setAttribute("aria-hidden", "true"); // the label, caption and tables say it
    if (!drawn.has(canvas)) canvas.on("plotly_relayout", () => retick(canvas));
    drawn.add(canvas);
  };

  // a figure is drawn when it is scrolled to, or its part of the page is opened
  const near = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      near.unobserve(target);
      if (!drawn.has(target)) draw(target);
    }
  }, { rootMargin: "400px" });
  for (const canvas of canvases) near.observe(canvas);

  const redraw = () => { for (const canvas of drawn) if (canvas.clientWidth) draw(canvas); else { drawn.delete(canvas); near.observe(canvas); } };
  const turned = (canvas) => canvas.clientWidth && canvas.classList.contains("narrow") !== canvas.clientWidth < 480;
  window.addEventListener("resize", () => {
    if (!window.matchMedia("print").matches && [...drawn].some(turned)) redraw();
  });
  night.addEventListener("change", redraw);

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const part of opened) part.open = true;
    for (const canvas of canvases) draw(canvas, false, PAPER);
  });
  window.addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
    redraw();
  });

  // a link to a folded part opens it
  const unfold = () => { const part = document.getElementById(location.hash.slice(1)); if (part?.tagName === "DETAILS") part.open = true; };
  window.addEventListener("hashchange", unfold);
  for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => setTimeout(unfold));
  unfold();
})();
