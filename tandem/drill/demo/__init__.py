"""The demo image: a small HTTP server whose writes a drill can judge."""
