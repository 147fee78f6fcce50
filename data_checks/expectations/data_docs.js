// The pages' own switches, without the libraries they were written for.
document.querySelectorAll('[data-toggle="collapse"]').forEach((link) => {
  const target = (link.getAttribute("href") || link.dataset.target || "#").slice(1);
  link.addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById(target)?.classList.toggle("show");
  });
});

function showSucceeded(shown) {
  const display = shown ? "" : "none";
  document.querySelectorAll(".hide-succeeded-validation-target").forEach((e) => (e.style.display = display));
  document.querySelectorAll(".hide-succeeded-validation-target-child").forEach((e) => {
    e.parentElement.style.display = display;
  });
  document.querySelectorAll(".hide-succeeded-validations-column-section-target-child").forEach((e) => {
    const section = e.parentElement.parentElement;
    section.style.display = display;
    document.querySelectorAll(`a[href$="${section.id}"]`).forEach((link) => (link.style.display = display));
  });
}

window.showAllValidations = () => showSucceeded(true);
window.hideSucceededValidations = () => showSucceeded(false);
