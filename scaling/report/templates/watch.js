"use strict";
(() => {
  const status = document.getElementById("status");
  const version = Number(status.dataset.version);
  const parts = () => [...document.querySelectorAll("main > [id]")];
  const folds = () => [...document.querySelectorAll("details")];
  const name = (fold) => fold.id || fold.className;  // a summary says how a check went

  // a new page opens where the old one was: at the same part, with the same parts unfolded
  const remember = () => {
    const part = parts().findLast((one) => one.getBoundingClientRect().top <= 0);
    sessionStorage.setItem("view", JSON.stringify({
      part: part?.id,
      below: part ? -part.getBoundingClientRect().top : scrollY,
      open: folds().filter((one) => one.open).map(name),
    }));
  };
  const restore = () => {
    const view = JSON.parse(sessionStorage.getItem("view") ?? "null");
    if (!view) return;
    for (const fold of folds()) if (view.open.includes(name(fold))) fold.open = true;
    const part = view.part && document.getElementById(view.part);
    const top = part ? part.getBoundingClientRect().top + scrollY : 0;
    scrollTo({ top: top + view.below, behavior: "instant" });
  };
  history.scrollRestoration = "manual";
  restore();

  const paragraph = (line) => Object.assign(document.createElement("p"), { textContent: line });
  const look = async () => {
    try {
      const state = await (await fetch("state")).json();
      if (state.version !== version) {
        remember();
        return location.reload();
      }
      status.replaceChildren(...state.lines.map(paragraph));
    } catch {
      status.classList.add("ended");
      status.append(paragraph("The command that serves this page has ended: this is its last page."));
      return;
    }
    setTimeout(look, 1000);
  };
  look();
})();
