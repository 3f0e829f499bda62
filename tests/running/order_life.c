/* A hand-written client: places, reads and cancels an order with libcurl, signing with OpenSSL as Kalshi documents it.
 *
 * cc order_life.c -lcurl -lcrypto -o order_life
 */
#include <curl/curl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static EVP_PKEY *key;
static char answer[65536];
static size_t length;

static size_t keep(char *data, size_t size, size_t count, void *unused) {
    (void)unused;
    size_t more = size * count;
    if (length + more >= sizeof answer) return 0;
    memcpy(answer + length, data, more);
    length += more;
    answer[length] = 0;
    return more;
}

static void sign(const char *text, char *base64) {
    unsigned char signature[512];
    size_t size = sizeof signature;
    EVP_PKEY_CTX *terms;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (EVP_DigestSignInit(context, &terms, EVP_sha256(), NULL, key) != 1 ||
        EVP_PKEY_CTX_set_rsa_padding(terms, RSA_PKCS1_PSS_PADDING) != 1 ||
        EVP_PKEY_CTX_set_rsa_pss_saltlen(terms, RSA_PSS_SALTLEN_DIGEST) != 1 ||
        EVP_DigestSign(context, signature, &size, (const unsigned char *)text, strlen(text)) != 1)
        exit(3);
    EVP_MD_CTX_free(context);
    EVP_EncodeBlock((unsigned char *)base64, signature, (int)size);
}

static long ask(const char *method, const char *path, const char *body) {
    char url[512], text[512], line[2048], base64[1024];
    const char *base = getenv("KALSHI_API_BASE_URL");
    struct timeval now;
    gettimeofday(&now, NULL);
    long long ms = now.tv_sec * 1000LL + now.tv_usec / 1000;
    snprintf(url, sizeof url, "%s%s", base, path);
    snprintf(text, sizeof text, "%lld%s/trade-api/v2%s", ms, method, path);
    sign(text, base64);
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    snprintf(line, sizeof line, "KALSHI-ACCESS-KEY: %s", getenv("KALSHI_API_KEY_ID"));
    headers = curl_slist_append(headers, line);
    snprintf(line, sizeof line, "KALSHI-ACCESS-TIMESTAMP: %lld", ms);
    headers = curl_slist_append(headers, line);
    snprintf(line, sizeof line, "KALSHI-ACCESS-SIGNATURE: %s", base64);
    headers = curl_slist_append(headers, line);
    CURL *curl = curl_easy_init();
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, keep);
    if (body) curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    length = 0;
    CURLcode code = curl_easy_perform(curl);
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    if (code != CURLE_OK) fprintf(stderr, "%s\n", curl_easy_strerror(code));
    return status;
}

static void value_of(const char *name, char *value, size_t size) {
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"%s\"", name);
    char *at = strstr(answer, wanted);
    if (at) at = strchr(at + strlen(wanted), '"');
    char *end = at ? strchr(at + 1, '"') : NULL;
    if (!end) {
        fprintf(stderr, "no %s in %s\n", name, answer);
        exit(4);
    }
    snprintf(value, size, "%.*s", (int)(end - at - 1), at + 1);
}

int main(int argc, char **argv) {
    char id[128], path[256], value[128];
    FILE *file = fopen(getenv("KALSHI_PRIVATE_KEY_PATH"), "r");
    key = file ? PEM_read_PrivateKey(file, NULL, NULL, NULL) : NULL;
    if (!key || argc != 2) return 2;
    if (ask("POST", "/portfolio/events/orders", argv[1]) != 201) return 5;
    value_of("order_id", id, sizeof id);
    snprintf(path, sizeof path, "/portfolio/orders/%s", id);
    if (ask("GET", path, NULL) != 200) return 6;
    value_of("status", value, sizeof value);
    puts(value);
    snprintf(path, sizeof path, "/portfolio/events/orders/%s", id);
    if (ask("DELETE", path, NULL) != 200) return 7;
    value_of("reduced_by", value, sizeof value);
    puts(value);
    return 0;
}
