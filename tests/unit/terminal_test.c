/* The escape that leaves the console, typed in one piece and byte by byte. */
#include "cli/terminal.h"

#include "check.h"

static bool type(struct terminal_escape *state, const char *typed, char *ret_text)
{
    size_t length = 0;
    bool leave = terminal_filter(state, typed, strlen(typed), ret_text, &length);
    ret_text[length] = '\0';
    return leave;
}

int main(void)
{
    struct terminal_escape state = {false};
    char text[32];
    CHECK(!type(&state, "abc", text));
    CHECK_STR(text, "abc");
    CHECK(!type(&state, "a\x1d\x1d" "b", text));
    CHECK_STR(text, "a\x1d" "b");
    CHECK(!type(&state, "a\x1dxq", text));
    CHECK_STR(text, "a\x1dxq");
    CHECK(type(&state, "ab\x1dq", text));
    CHECK_STR(text, "ab");
    CHECK(!type(&state, "\x1d", text));
    CHECK_STR(text, "");
    CHECK(type(&state, "q", text));
    CHECK(!type(&state, "q", text));
    CHECK_STR(text, "q");
    CHECK_DONE();
}
