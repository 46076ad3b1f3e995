/* SPDX-License-Identifier: MIT
 * Certificates for tests, made by the openssl command in a directory of their own. */
#ifndef CERTIFICATES_H
#define CERTIFICATES_H

/* NAME.pem is a certificate, NAME.key its key:
 *     ca           a CA, which has signed all that follow but the last three
 *     server       for localhost, 127.0.0.1 and ::1
 *     named        for localhost only
 *     elsewhere    for elsewhere.example
 *     wild         for *.example.test
 *     nameless     for the common name "localhost" alone
 *     expired      as server, until yesterday
 *     chained      as server, by a CA in the middle, which is in the same file
 *     client       for a client; client-both.pem holds the key, too, client-locked.key has a passphrase
 *     self         as server, signed by itself
 *     stranger-ca  another CA
 *     stranger     as server, by stranger-ca */
void certificates_make(void);
void certificates_remove(void);

/* The path of one of these files; one of sixteen buffers, in turn. */
const char *certificate(const char *file);

#endif
