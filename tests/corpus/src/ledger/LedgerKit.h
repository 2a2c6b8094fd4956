typedef struct Account {
    const char *name;
    long last_compared;
} Account;

typedef struct Entry {
    long amount;
    Account *account;
} Entry;

typedef struct Book Book;
typedef long (*LKOrder)(const void *left, const void *right, void *context);

Book *LKBookCreate(long capacity);
void LKBookAdd(Book *book, Entry *entry);
long LKBookSort(Book *book, LKOrder order);
int LKJournalOpen(Book *book);
