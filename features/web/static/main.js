// Opens the page: what this server has, which view the address names.
const about = await (await fetch("/api/about")).json();
document.title = about.title;
document.getElementById("loading").textContent = about.title;
