/* SPDX-License-Identifier: MIT
 * Certificates for tests, made by the openssl command in a directory of their own. */
#include "certificates.h"

#include <stdlib.h>
#include <unistd.h>

#include "support.h"

static char directory[64];

/* $1 is the directory. Keys on P-256 are made quickly. */
static const char script[] =
    "cd \"$1\" && exec 2>log && set -e\n"
    "new='openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'\n"
    "here='subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1'\n"
    "ca() { $new -x509 -days 30 -subj \"/CN=$1\" -keyout $1.key -out $1.pem; }\n"
    "leaf() { # name, subject, signer, extensions, when\n"
    "    $new -subj \"$2\" -keyout $1.key -out $1.csr; printf '%b' \"$4\" >$1.ext\n"
    "    openssl x509 -req -in $1.csr -CA $3.pem -CAkey $3.key -CAcreateserial -extfile $1.ext $5 -out $1.pem\n"
    "}\n"
    "ca ca; ca stranger-ca\n"
    "leaf server /CN=server ca $here '-days 30'\n"
    "leaf named /CN=server ca subjectAltName=DNS:localhost '-days 30'\n"
    "leaf elsewhere /CN=localhost ca subjectAltName=DNS:elsewhere.example '-days 30'\n"
    "leaf nameless /CN=localhost ca basicConstraints=CA:FALSE '-days 30'\n"
    "leaf wild /CN=wild ca 'subjectAltName=DNS:*.example.test' '-days 30'\n"
    "leaf expired /CN=server ca $here '-not_before 20200101000000Z -not_after 20200102000000Z' ||\n"
    "    leaf expired /CN=server ca $here '-days -1'\n"
    "leaf middle /CN=middle ca 'basicConstraints=critical,CA:TRUE\\nkeyUsage=keyCertSign' '-days 30'\n"
    "leaf chained /CN=server middle $here '-days 30'; cat middle.pem >>chained.pem\n"
    "leaf client /CN=client ca basicConstraints=CA:FALSE '-days 30'; cat client.pem client.key >client-both.pem\n"
    "openssl ec -in client.key -aes128 -passout pass:secret -out client-locked.key\n"
    "$new -x509 -days 30 -subj /CN=self -addext $here -keyout self.key -out self.pem\n"
    "leaf stranger /CN=server stranger-ca $here '-days 30'\n";

void certificates_make(void) {
    char command[sizeof script + 128];
    snprintf(directory, sizeof directory, "/tmp/steady-certificates-XXXXXX");
    assert_non_null(mkdtemp(directory));
    snprintf(command, sizeof command, "set -- %s\n%s", directory, script);
    if (system(command) != 0) fail_msg("openssl made no certificates: see %s/log", directory);
}

void certificates_remove(void) {
    char command[128];
    if (directory[0] == '\0') return;
    snprintf(command, sizeof command, "rm -r %s", directory);
    if (system(command) != 0) fail_msg("%s cannot be removed", directory);
    directory[0] = '\0';
}

const char *certificate(const char *file) {
    static char paths[16][128];
    static unsigned next;
    char *path = paths[next++ % 16];
    snprintf(path, sizeof paths[0], "%s/%s", directory, file);
    return path;
}
