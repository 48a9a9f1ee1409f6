"""SMS, email and telephony for any Flask app, through interchangeable providers."""
