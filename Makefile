# A short front for meson. `make` builds build/veneer; the README says what the rest do.
BUILD ?= build
TEST_BUILD ?= build-test
PREFIX ?= /usr/local

.PHONY: all demo test test-run deps install clean

all: $(BUILD)/build.ninja
	ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@scripts/deps.sh --check build
	meson setup $(BUILD) -Dbuildtype=release -Dtests=false -Dprefix=$(PREFIX)

# Installs from Debian's packages what building, the demo and the tests need (root or sudo).
deps:
	@scripts/deps.sh build demo test

demo:
	@scripts/deps.sh build demo
	@$(MAKE) --no-print-directory all
	@scripts/demo.sh $(BUILD)/veneer

test:
	@scripts/deps.sh build demo test
	@$(MAKE) --no-print-directory test-run

# The tests alone, with address and undefined-behaviour sanitizers, without installing anything.
# A time limit is there for what hangs, not for what is slow: a machine with two busy cores gets four times as much.
test-run: $(TEST_BUILD)/build.ninja
	ninja -C $(TEST_BUILD)
	meson test -C $(TEST_BUILD) --print-errorlogs --timeout-multiplier 4

$(TEST_BUILD)/build.ninja:
	meson setup $(TEST_BUILD) -Dbuildtype=debugoptimized -Db_sanitize=address,undefined -Dwerror=true

install: all
	meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf $(BUILD) $(TEST_BUILD)
