"""How near estimated stems come to true ones: measures, and all of them for one track."""
