"""Reading audio files of any container, with exact lengths; `audio_reader` is the way in."""
