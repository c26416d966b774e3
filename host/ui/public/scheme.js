(function () {
  var chosen = 'auto';
  try {
    chosen = localStorage.getItem('aether-scheme') || 'auto';
  } catch (e) {
    // Without storage the system's scheme stands.
  }
  var dark = chosen === 'dark' || (chosen !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.setAttribute('data-mantine-color-scheme', dark ? 'dark' : 'light');
})();
