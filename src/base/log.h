/* log.h - messages to the person who runs veneer, on standard error. Thread-safe; one call, one line. */
#ifndef VENEER_BASE_LOG_H
#define VENEER_BASE_LOG_H

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* Messages above this level are dropped. The default is LOG_WARNING. */
void log_set_level(enum log_level level);

/* Text put after each message's newline while the terminal is raw ("\r"), or "" (the default).
 * The string is kept, not copied. */
void log_set_line_end(const char *line_end);

void log_message(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_message(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_message(LOG_WARNING, __VA_ARGS__)
#define log_info(...) log_message(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_message(LOG_DEBUG, __VA_ARGS__)

#endif
