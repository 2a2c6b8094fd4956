#include "LedgerKit.h"

#include "CoreFoundation.h"
#include "system.h"

struct Book {
    CFMutableArrayRef entries;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    long written;
};

Book *LKBookCreate(long capacity) {
    Book *book = calloc(1, sizeof *book);
    book->entries = CFArrayCreateMutable(0, capacity, 0);
    return book;
}

void LKBookAdd(Book *book, Entry *entry) {
    CFArrayAppendValue(book->entries, entry);
}

long LKBookSort(Book *book, LKOrder order) {
    CFRange all = {0, CFArrayGetCount(book->entries)};
    CFArraySortValues(book->entries, all, order, book);
    return all.length;
}

__attribute__((noinline)) static void wait_for_change(Book *book) {
    while (book->written == CFArrayGetCount(book->entries))
        pthread_cond_wait(&book->changed, &book->lock);
}

static void *journal_main(void *argument) {
    Book *book = argument;
    for (;;) {
        book->written = CFArrayGetCount(book->entries);
        wait_for_change(book);
    }
}

int LKJournalOpen(Book *book) {
    pthread_t thread;
    return pthread_create(&thread, 0, journal_main, book);
}
