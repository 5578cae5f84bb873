// Select all rows of a table at once: a checkbox with data-all is for those of its form.
document.addEventListener("change", (event) => {
  const form = event.target.form;
  const all = form?.querySelector("[data-all]");
  if (!all) return;
  const rows = [...form.querySelectorAll("tbody input[type=checkbox]")];
  if (event.target === all) for (const row of rows) row.checked = all.checked;
  all.checked = rows.every((row) => row.checked);
  all.indeterminate = !all.checked && rows.some((row) => row.checked);
});
