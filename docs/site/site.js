// The keyboard reaches what scrolls, and a screen reader hears a name for every part.
window.addEventListener("load", () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap, pre > code, p:has(> img)")) {
    box.tabIndex = 0;
  }
  document.querySelectorAll(".md-code__nav").forEach((buttons, place) => {
    buttons.setAttribute("aria-label", `Code ${place + 1}`);
  });
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
});
