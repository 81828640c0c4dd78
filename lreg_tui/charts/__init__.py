"""What charts compute: decimation, ticks, smoothing, zoom. No widget in here, and numpy is imported late."""
