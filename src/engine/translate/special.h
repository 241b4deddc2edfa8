/* special.h - which instructions special.c emits. */
#ifndef VENEER_ENGINE_TRANSLATE_SPECIAL_H
#define VENEER_ENGINE_TRANSLATE_SPECIAL_H

#include "engine/translate/native.h"

/* NATIVE_BITS, NATIVE_STRING, NATIVE_LEAVE or NATIVE_PUSH_MEMORY, with the memory operand noted; else NATIVE_NO. */
enum native_kind special_kind(struct native *n);

#endif
