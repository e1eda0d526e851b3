"""The report: findings and sections -> a document -> Markdown, HTML, the terminal and a live page."""
