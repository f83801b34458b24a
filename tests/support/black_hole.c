/* black_hole.c - an address that drops packets: black_hole ADDRESS PORT
 *
 * Listens on a loopback address with the shortest queue possible, fills the queue itself and never accepts: the kernel
 * then drops further SYNs, and a client waits as for a host behind a firewall (scenario 4). Prints "ready" and runs
 * until its standard input ends.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define FILL 8 /* more connections than fit into the queue */

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    char byte;

    if (argc != 3 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fprintf(stderr, "usage: black_hole ADDRESS PORT\n");
        return 2;
    }
    address.sin_port = htons((unsigned short)atoi(argv[2]));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(listener, 0) != 0) {
        perror("black_hole");
        return 1;
    }
    for (int i = 0; i < FILL; i++) {
        int filler = socket(AF_INET, SOCK_STREAM, 0);

        fcntl(filler, F_SETFL, O_NONBLOCK);
        if (connect(filler, (struct sockaddr *)&address, sizeof(address)) != 0) continue; /* EINPROGRESS is expected */
    }
    usleep(100 * 1000); /* until the first of them are in the queue */
    printf("ready\n");
    fflush(stdout);
    while (read(0, &byte, 1) > 0) continue;
    return 0;
}
