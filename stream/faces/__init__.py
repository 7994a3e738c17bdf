"""Finding, following and cutting out faces: numbers and crops, no video and no engine."""
