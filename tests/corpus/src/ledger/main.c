#include "LedgerKit.h"

static Account cash = {"cash", 0};
static Account rent = {"rent", 0};

/* The last entry has no account: whoever compares it writes through a null pointer. */
static Entry entries[] = {{120, &cash}, {-45, &rent}, {300, &cash}, {17, 0}};

__attribute__((noinline)) static long compare_entries(const void *left, const void *right, void *context) {
    const Entry *a = left;
    const Entry *b = right;
    (void)context;
    a->account->last_compared = b->amount;
    return a->amount < b->amount ? -1 : a->amount > b->amount;
}

__attribute__((noinline)) static Book *open_book(void) {
    Book *book = LKBookCreate(16);
    for (unsigned i = 0; i < sizeof entries / sizeof *entries; i++)
        LKBookAdd(book, &entries[i]);
    return book;
}

int main(int argc, char **argv) {
    (void)argv;
    Book *book = open_book();
    if (LKJournalOpen(book) != 0)
        return 1;
    long sorted = LKBookSort(book, compare_entries);
    return sorted != argc;
}
