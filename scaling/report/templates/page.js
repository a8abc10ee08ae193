"use strict";
(() => {
  // on paper everything is open
  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const part of opened) part.open = true;
  });
  window.addEventListener("afterprint", () => { for (const part of opened) part.open = false; });

  // a link to a folded part opens it
  const unfold = () => { const part = document.getElementById(location.hash.slice(1)); if (part?.tagName === "DETAILS") part.open = true; };
  window.addEventListener("hashchange", unfold);
  for (const link of document.querySelectorAll("nav a")) link.addEventListener("click", () => setTimeout(unfold));
  unfold();
})();
