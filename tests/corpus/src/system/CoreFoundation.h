typedef long CFIndex;
typedef struct { CFIndex location, length; } CFRange;
typedef struct __CFArray *CFMutableArrayRef;
typedef CFIndex (*CFComparatorFunction)(const void *, const void *, void *);

CFMutableArrayRef CFArrayCreateMutable(const void *, CFIndex, const void *);
void CFArrayAppendValue(CFMutableArrayRef, const void *);
CFIndex CFArrayGetCount(CFMutableArrayRef);
void CFArraySortValues(CFMutableArrayRef, CFRange, CFComparatorFunction, void *);
