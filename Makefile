TOOLS := $(or $(TIDEWATCH_STATE_DIR),.state)/env/tools/bin
.PHONY: install up down status demo test lint requirements

install: ; bin/tidewatch install
up: install ; bin/tidewatch up
down: ; bin/tidewatch down
status: ; bin/tidewatch status
demo: install ; bin/tidewatch demo
test: ; tests/run
lint: install ; $(TOOLS)/ruff check . && $(TOOLS)/mypy
requirements: ; requirements/compile
