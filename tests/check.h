/* check.h - the smallest test vocabulary: CHECK says what failed and goes on; main ends with CHECK_DONE. */
#ifndef VENEER_TESTS_CHECK_H
#define VENEER_TESTS_CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static int check_failures;
static int check_count;

#define CHECK(condition)                                                             \
    do {                                                                             \
        check_count++;                                                               \
        if (!(condition)) {                                                          \
            check_failures++;                                                        \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);  \
        }                                                                            \
    } while (0)

/* Compares two integers and prints both. */
#define CHECK_EQ(got, want)                                                                           \
    do {                                                                                              \
        uint64_t check_got = (uint64_t)(got), check_want = (uint64_t)(want);                          \
        check_count++;                                                                                \
        if (check_got != check_want) {                                                                \
            check_failures++;                                                                         \
            fprintf(stderr, "%s:%d: %s is 0x%" PRIx64 ", not 0x%" PRIx64 "\n", __FILE__, __LINE__,    \
                    #got, check_got, check_want);                                                     \
        }                                                                                             \
    } while (0)

/* Compares two strings and prints both. */
#define CHECK_STR(got, want)                                                                          \
    do {                                                                                              \
        const char *check_got = (got), *check_want = (want);                                          \
        check_count++;                                                                                \
        if (strcmp(check_got, check_want) != 0) {                                                     \
            check_failures++;                                                                         \
            fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, #got, check_got, \
                    check_want);                                                                      \
        }                                                                                             \
    } while (0)

/* The last line of main: a test that checked nothing has failed. */
#define CHECK_DONE() \
    return (printf("%d checks, %d failures\n", check_count, check_failures), check_failures || !check_count)

#endif
