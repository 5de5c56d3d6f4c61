"""Features of recordings, from STFT to chroma, whole or in parts; `extraction` is the way in."""
