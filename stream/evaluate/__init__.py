"""The papers' measures on pictures and crops: FID, LPIPS, PPL, a detector's AP, re-identification."""
