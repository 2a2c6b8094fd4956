/* The umbrella: everything else is re-exported. */
static int initialized;

void libSystem_initializer(void) { initialized = 1; }
