"""Video in, the same video with its faces restored out."""
