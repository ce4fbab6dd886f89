// Makes fsync and fdatasync fail with EIO while the file named by IOFAULT exists.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int faulty(void) {
    const char *name = getenv("IOFAULT");
    return name && access(name, F_OK) == 0;
}

int fsync(int handle) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fsync");
    if (faulty()) { errno = EIO; return -1; }
    return real(handle);
}

int fdatasync(int handle) {
    int (*real)(int) = dlsym(RTLD_NEXT, "fdatasync");
    if (faulty()) { errno = EIO; return -1; }
    return real(handle);
}
