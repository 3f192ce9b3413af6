/* main of a program that breaks a pool; see corrupt.h. */
#define NAME(...) #__VA_ARGS__,
#define CASE(...) \
    if (way == number++) { \
        __VA_ARGS__; \
    }

int main(int argc, char **argv)
{
    static const char *const names[] = {WAYS(NAME)};
    if (argc != 2) {
        printf("%zu\n", sizeof names / sizeof *names);
        return 0;
    }
    const int way = atoi(argv[1]);
    dedupcore_pool *pool = make();
    dedupcore_flaw flaw;
    int number = 0;
    must(dedupcore_pool_check(pool, &flaw));
    WAYS(CASE)
    if (way < 0) {
        puts("sound");
        return 0;
    }
    if (dedupcore_pool_check(pool, &flaw) != DEDUPCORE_EBROKEN) {
        fprintf(stderr, "not noticed: %s\n", names[way]);
        return 1;
    }
    printf("%s\t%s\t%d\t%lld\t%lld\n", names[way], flaw.what, (int)flaw.guest, (long long)flaw.page, (long long)flaw.frame);
    return 0;
}
