/* A loadable bundle of the host. */
#include "CoreFoundation.h"

CFIndex GeneratePreviewForURL(CFMutableArrayRef urls) { return CFArrayGetCount(urls); }
