"""The troubleshooting list as a program: small checks over a log, each with its number and the next step."""
