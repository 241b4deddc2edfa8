/* case.c - the linear address space of a case. */
#include "case.h"

const struct eq_window eq_windows[EQ_WINDOWS] = {
    {EQ_CODE_A, 0, EQ_X},
    {EQ_CODE_A + 0x1000, 1, EQ_X},
    {EQ_CODE_B, 2, EQ_X},
    {EQ_CODE_B + 0x1000, 3, EQ_W},
    {EQ_DATA_LOW + 0x1000, 4, EQ_W},
    {EQ_DATA_LOW + 0x2000, 5, EQ_W},
    {EQ_DATA_LOW + 0x4000, 6, EQ_W},
    {EQ_DATA_LOW + 0x5000, 7, 0},
    {EQ_DATA_LOW + 0x6000, 8, EQ_W},
    {EQ_DATA_HIGH + 0x1000, 4, EQ_W},
    {EQ_DATA_HIGH + 0x2000, 5, EQ_W},
    {EQ_DATA_HIGH + 0x4000, 6, EQ_W},
    {EQ_DATA_HIGH + 0x5000, 7, 0},
    {EQ_DATA_HIGH + 0x6000, 8, EQ_W},
};

long eq_image_offset(uint64_t linear)
{
    for (unsigned i = 0; i < EQ_WINDOWS; i++)
        if (linear - eq_windows[i].linear < EQ_PAGE)
            return (long)(eq_windows[i].page * EQ_PAGE + (linear & (EQ_PAGE - 1)));
    return -1;
}

unsigned eq_code_fits(const struct eq_case *c)
{
    unsigned until_page_end = EQ_PAGE - (unsigned)(c->address & (EQ_PAGE - 1));

    return c->length > until_page_end && eq_image_offset(c->address + until_page_end) < 0 ? until_page_end : c->length;
}
