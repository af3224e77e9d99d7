-- Where traces are on, a job knows the request it was promised in (W3C traceparent).
ALTER TABLE job ADD COLUMN trace {text};
