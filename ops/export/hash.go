package export

import (
	"crypto/sha256"
	"encoding/hex"
)

func sum(text []byte) string {
	hash := sha256.Sum256(text)
	return hex.EncodeToString(hash[:])
}
