// Package podtoken reads the claims of a Kubernetes service account token: the service account, the pod that it is
// bound to, and when it expires.
//
// It does not verify the signature. Only the server that receives the token (Vault, the API server) can verify the
// claims. Use them to refuse a token, or in a log after that server has accepted the token, but never to grant
// anything.
package podtoken

import (
	"errors"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// ErrMalformed means that a text is not a service account token of the API server: a signed JSON web token with the
// claims of a service account.
var ErrMalformed = errors.New("not a Kubernetes service account token")

// algorithms are the signature algorithms with a key pair. The API server uses RS256 and ES256 to ES512; an external
// signer (KEP-740) may use others. "none" and the algorithms with a shared key are excluded.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512,
	jose.PS256, jose.PS384, jose.PS512, jose.EdDSA,
}

// Claims are the unverified claims of a service account token.
type Claims struct {
	Namespace         string
	ServiceAccount    string
	ServiceAccountUID string
	Pod               string // empty for a token that is bound to no pod
	PodUID            string
	Expires           time.Time // zero if the token has no expiry
}

// Parse returns the claims of a token. The error is [ErrMalformed], which does not quote the token.
func Parse(token string) (Claims, error) {
	parsed, err := jwt.ParseSigned(token, algorithms)
	if err != nil {
		return Claims{}, ErrMalformed
	}
	var all struct {
		Expires    *jwt.NumericDate `json:"exp"`
		Kubernetes struct {
			Namespace      string `json:"namespace"`
			ServiceAccount object `json:"serviceaccount"`
			Pod            object `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if err := parsed.UnsafeClaimsWithoutVerification(&all); err != nil {
		return Claims{}, ErrMalformed
	}
	c := Claims{
		Namespace:         all.Kubernetes.Namespace,
		ServiceAccount:    all.Kubernetes.ServiceAccount.Name,
		ServiceAccountUID: all.Kubernetes.ServiceAccount.UID,
		Pod:               all.Kubernetes.Pod.Name,
		PodUID:            all.Kubernetes.Pod.UID,
	}
	if all.Expires != nil {
		c.Expires = all.Expires.Time()
	}
	if c.Namespace == "" || c.ServiceAccount == "" || c.ServiceAccountUID == "" {
		return Claims{}, ErrMalformed
	}
	return c, nil
}

// object names a Kubernetes object in the private claims.
type object struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}
