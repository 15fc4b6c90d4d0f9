// The SDK tells the console all it does; only a test's result is to be seen, unless TESTS_LOG is set.
// Imported before the SDK, which binds the console's functions when it is loaded.

if (!process.env.TESTS_LOG) {
    for (const level of ["trace", "debug", "info", "log", "warn", "error"]) console[level] = () => {};
}
